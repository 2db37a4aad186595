"""``make bench``: filestored measured side by side with nginx, on one machine, in one run."""
