"""A service that takes in the webhooks of a platform that runs actors."""
