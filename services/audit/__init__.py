"""Numbers and keeps everything that happened: for people, and as a stream for operations teams and SIEMs."""
