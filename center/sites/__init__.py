"""Who is in: enrolment, roster, rings, certificates, and the door."""
