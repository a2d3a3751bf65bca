"""Events from tills and kiosks, over the site's own MQTT broker."""
