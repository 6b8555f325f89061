"""The command line, `kagglehms COMMAND …`, and the commands that are no part of another room: demo and doctor."""
