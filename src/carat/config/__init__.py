"""Experiments and their sections: checked, with errors in one line."""
