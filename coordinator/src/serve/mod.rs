//! Serving: agents and admins over mutual-TLS gRPC; enrolment; authorisation; audit.
