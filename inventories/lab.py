"""All sites on this machine: the same hosts, reached through the lab's relay."""

from fleet.load import publish
from fleet.model.lab import in_the_lab
from inventories import exoscale, home, vultr

publish(globals(), *(in_the_lab(place.site) for place in (home, exoscale, vultr)))
