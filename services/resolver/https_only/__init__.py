"""The door for instances of the profile `https`: mutual TLS, answers as they are, notices and receipts over HTTP."""
