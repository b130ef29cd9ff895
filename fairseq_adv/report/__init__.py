"""What runs logged and scored, as tables, figures and one page."""
