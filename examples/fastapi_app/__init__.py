"""A web service that starts sagas inside its requests' transactions."""
