"""The API: its endpoints, their answers, and the validation of requests."""
