"""Real engines for tests, started privately and removed without a trace."""
