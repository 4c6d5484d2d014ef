"""How a lease is applied by each kind of spawner."""
