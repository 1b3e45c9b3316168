"""What sync does when something calls for a look: a hint of a change feed, a sweep, an operator."""
