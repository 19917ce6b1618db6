"""Many settings of one method, tried on validation."""
