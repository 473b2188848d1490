"""A stand-in of a Slack workspace: Web API, Socket Mode and HTTP delivery, people who use it, and a page."""

from sandbox.slack.delivery import Ack, Envelope
from sandbox.slack.person import Person
from sandbox.slack.server import Call
from sandbox.slack.standin import SlackStandIn
from sandbox.slack.workspace import Channel, File, Member

__all__ = ["Ack", "Call", "Channel", "Envelope", "File", "Member", "Person", "SlackStandIn"]
