"""A run as one file for other programs: ONNX, safetensors, each with a model card."""
