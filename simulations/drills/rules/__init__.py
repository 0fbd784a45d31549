"""The rules drill: every kind of rule at once, under many processes."""
