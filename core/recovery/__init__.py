"""A card that fails, hangs or lies: noticed by a watchdog, brought back rung by rung, counted on disk.

ladder: what is tried, in which order; first_load: the same while nothing is loaded yet; firmware: reboots;
bounded_call: calls that may never return; pass_watch: who hangs in one while passes run; attempts: how often what was
tried, also by processes before this one."""
