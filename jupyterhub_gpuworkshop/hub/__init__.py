"""What runs inside the hub process: leases, spawners, configuration."""
