"""The service: its notebook image, its rules for metadata and scripts, its client, uploads and pushes."""
