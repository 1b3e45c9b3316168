"""HTTP of policy: administration, enrolment, and what subjects ask about themselves."""
