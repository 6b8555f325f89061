"""What people look at: the report of all runs, the view of one EEG, and what this machine can do."""
