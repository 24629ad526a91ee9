"""Files on servers: their addresses, access to the servers, and a cache of what was fetched."""
