"""What the tools of a Jetson or of a GeForce machine say of it."""
