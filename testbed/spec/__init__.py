"""What the user wrote: topologies, NAT profiles, links and scenarios, as frozen values."""
