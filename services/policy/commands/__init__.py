"""What administrators, subjects and instances ask for: each command reads, decides and writes in one work."""
