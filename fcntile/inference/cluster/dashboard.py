"""Dask's dashboard, which is there once somebody asks for it.

What draws it takes half a second to import, during which workers would wait for their first parts.
"""

from typing import Any

from tornado.web import RequestHandler


class Dashboard(RequestHandler):
    """Adds the dashboard's pages to a scheduler's web server, and leads to the first."""

    def initialize(self, dask_server: Any) -> None:
        """Take the scheduler, which Dask gives by this name."""
        self._scheduler = dask_server

    def get(self) -> None:
        """Add the pages, if nobody has asked before, and redirect to the first."""
        scheduler = self._scheduler
        if not scheduler.http_application.applications:
            from distributed.dashboard.scheduler import connect

            connect(scheduler.http_application, scheduler.http_server, scheduler)
        self.redirect("status")


# Dask looks for this name
routes: list[tuple[str, type, dict[str, Any]]] = [("dashboard", Dashboard, {})]
