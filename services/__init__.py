"""The services of Keyfob, one package each; they share events, never tables and never each other's code."""
