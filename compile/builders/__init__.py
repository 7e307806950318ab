"""One small builder per engine family."""
