"""Files on servers: addresses, how their servers are asked, and a cache of what they gave."""
