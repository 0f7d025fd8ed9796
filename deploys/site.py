"""A whole site: everything that its hosts declare."""

from deploys.converge import converge
from fleet.model.service import Service

converge(Service)
