"""Every image through the teacher once: decode, forward, write columns and features."""
