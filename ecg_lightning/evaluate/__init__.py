"""From predictions to judgements; files in, figures out."""
