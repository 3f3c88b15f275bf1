"""Programs that run at the ends: reference agents, the rendezvous, and the door to external programs."""
