"""What a person reads after an evaluation: the HTML page, its plots and its pictures."""
