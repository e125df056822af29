"""The other side of the API: what workers, the triggerer and the command line call the service with."""
