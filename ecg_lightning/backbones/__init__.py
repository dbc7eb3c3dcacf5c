"""Published ECG networks behind one promise."""
