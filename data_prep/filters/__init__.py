"""Filters: rules on one row, scores of models, and rules on the whole set. None runs unless configured."""
