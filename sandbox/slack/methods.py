"""The Web API: each method changes the workspace as Slack's does, and refuses what Slack refuses, with its codes."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Iterable
from typing import Any

from sandbox import blocks
from sandbox.slack.workspace import (
    APP,
    BOT,
    BOT_USER,
    DOMAIN,
    TEAM,
    VIEW_STACK,
    Channel,
    File,
    Json,
    OpenView,
    SlackError,
    Trigger,
    Workspace,
)

_Method = Callable[["WebApi", Json], Json]
_METHODS: dict[str, tuple[tuple[str, ...], _Method]] = {}
"""Each method, with scopes of which the app needs one; the kind of the channel may require another."""

_KINDS = ("channels", "groups", "im")
_READ = tuple(f"{kind}:read" for kind in _KINDS)
_HISTORY = tuple(f"{kind}:history" for kind in _KINDS)


def _method(name: str, *scopes: str) -> Callable[[_Method], _Method]:
    def keep(function: _Method) -> _Method:
        _METHODS[name] = (scopes, function)
        return function

    return keep


class WebApi:
    """Answers Web API calls. Call it while holding the workspace."""

    def __init__(
        self,
        workspace: Workspace,
        *,
        bot_token: str,
        app_token: str,
        scopes: Iterable[str] | None,
        home_enabled: bool,
        messages_enabled: bool,
        socket_url: Callable[[], str],
        base: str,
        any_trigger: bool,
    ) -> None:
        self.workspace = workspace
        self.bot_token = bot_token
        self.app_token = app_token
        self.scopes = None if scopes is None else frozenset(scopes)
        self.home_enabled = home_enabled
        self.messages_enabled = messages_enabled
        self.socket_url = socket_url
        self.base = base
        self.any_trigger = any_trigger

    def call(self, method: str, arguments: Json, token: str) -> Json:
        """Perform one call; returns the answer without `ok`. Raises SlackError."""
        if method not in _METHODS:
            raise SlackError("unknown_method", req_method=method)
        if not token:
            raise SlackError("not_authed")
        if token not in (self.bot_token, self.app_token):
            raise SlackError("invalid_auth")
        if (token == self.app_token) != (method == "apps.connections.open"):
            raise SlackError("not_allowed_token_type")
        scopes, function = _METHODS[method]
        if scopes:
            self.need(*scopes)
        return function(self, arguments)

    def need(self, *scopes: str) -> None:
        """Raise missing_scope unless the app has one of these scopes."""
        if self.scopes is not None and not self.scopes.intersection(scopes):
            raise SlackError("missing_scope", needed=",".join(scopes), provided=",".join(sorted(self.scopes)))

    def has(self, scope: str) -> bool:
        """Whether the app was granted that scope."""
        return self.scopes is None or scope in self.scopes

    def known(self, arguments: Json) -> Channel:
        """The channel that an argument names. Raises SlackError where the app may not know of the channel."""
        name = str(arguments.get("channel") or "")
        if name in self.workspace.members and name != BOT_USER:
            return self.workspace.direct(name)
        try:
            channel = self.workspace.channel(name)
        except KeyError:
            raise SlackError("channel_not_found") from None
        if channel.private and BOT_USER not in channel.members:
            raise SlackError("channel_not_found")
        return channel

    def writable(self, arguments: Json) -> Channel:
        """The channel that an argument names. Raises SlackError where the app may not post to the channel."""
        channel = self.known(arguments)
        if channel.archived:
            raise SlackError("is_archived")
        if channel.direct and not self.messages_enabled:
            raise SlackError("messages_tab_disabled")
        if BOT_USER not in channel.members and not self.has("chat:write.public"):
            raise SlackError("not_in_channel")
        return channel

    def readable(self, arguments: Json) -> Channel:
        """The channel that an argument names. Raises SlackError where the app may not read the channel."""
        channel = self.known(arguments)
        self.need(f"{channel.kind}:history")
        if BOT_USER not in channel.members:
            raise SlackError("not_in_channel")
        return channel

    def content(self, arguments: Json, *, most: int) -> tuple[str, Json]:
        """A message's text and its blocks, metadata and thread, checked. Absent parts are absent from the answer."""
        text = str(arguments.get("text") or "")
        if len(text) > most:
            raise SlackError("msg_too_long")
        content: Json = {}
        if arguments.get("blocks") is not None:
            content["blocks"] = _decoded(arguments["blocks"], "invalid_blocks_format")
            problems = blocks.message_problems(content["blocks"])
            if problems:
                raise SlackError("invalid_blocks", errors=problems, response_metadata={"messages": problems})
            if blocks.text_length(content["blocks"]) > blocks.MAX_BLOCKS_TEXT:
                raise SlackError("msg_blocks_too_long")
        if arguments.get("metadata") is not None:
            metadata = content["metadata"] = _decoded(arguments["metadata"], "invalid_metadata_format")
            if metadata and not (
                isinstance(metadata, dict)
                and isinstance(metadata.get("event_type"), str)
                and isinstance(metadata.get("event_payload"), dict)
            ):
                raise SlackError("invalid_metadata_format")
        if arguments.get("thread_ts"):
            content["thread_ts"] = str(arguments["thread_ts"])
        return text, content

    def own_message(self, arguments: Json, refusal: str) -> tuple[Channel, Json]:
        """The app's message that an argument names, with its channel. Raises SlackError."""
        channel = self.known(arguments)
        message = channel.messages.get(str(arguments.get("ts")))
        if message is None:
            raise SlackError("message_not_found")
        if message.get("bot_id") != BOT:
            raise SlackError(refusal)
        return channel, message

    def view(self, arguments: Json, kind: str = "modal") -> Json:
        """The view that an argument holds, checked. Raises SlackError."""
        raw = arguments.get("view")
        if not raw:
            raise _invalid(["[ERROR] missing required field: view"])
        view = _decoded(raw, "invalid_arguments")
        problems = blocks.view_problems(view)
        if not problems and view["type"] != kind:
            problems = [f"[ERROR] must be of type {kind} [json-pointer:/view/type]"]
        if problems:
            raise _invalid(problems)
        size = len(json.dumps(view, separators=(",", ":"), ensure_ascii=False))
        if size > blocks.MAX_VIEW_BYTES // 4 and len(json.dumps(view).encode()) > blocks.MAX_VIEW_BYTES:
            raise SlackError("view_too_large")
        checked: Json = view
        return checked

    def unique(self, view: Json, but: str = "") -> None:
        """Raise SlackError where the view's external id is used already."""
        external = view.get("external_id")
        found = self.workspace.find_view(external) if external else None
        if found and found[1].view["id"] != but:
            raise SlackError("duplicate_external_id")

    def trigger(self, arguments: Json) -> Trigger:
        """Use up the trigger that an argument names. Raises SlackError."""
        if self.any_trigger:
            return Trigger("U01DEMO", None, None, 0.0)
        return self.workspace.use_trigger(str(arguments.get("trigger_id") or ""))


def _decoded(value: Any, refusal: str) -> Any:
    """An argument's value: given as itself in a JSON body, as JSON in a form."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError:
        raise SlackError(refusal) from None


def _invalid(messages: list[str]) -> SlackError:
    return SlackError("invalid_arguments", response_metadata={"messages": messages})


def _flag(value: Any) -> bool:
    return value is True or str(value).lower() in ("1", "true")


@_method("api.test")
def _api_test(api: WebApi, arguments: Json) -> Json:
    return {"args": arguments}


@_method("auth.test")
def _auth_test(api: WebApi, arguments: Json) -> Json:
    return {
        "url": f"https://{DOMAIN}.slack.com/",
        "team": "Sandbox",
        "user": "nomads",
        "team_id": TEAM,
        "user_id": BOT_USER,
        "bot_id": BOT,
        "is_enterprise_install": False,
    }


@_method("apps.connections.open")
def _connections_open(api: WebApi, arguments: Json) -> Json:
    return {"url": api.socket_url()}


@_method("chat.postMessage", "chat:write")
def _post_message(api: WebApi, arguments: Json) -> Json:
    channel = api.writable(arguments)
    text, content = api.content(arguments, most=blocks.MAX_MESSAGE_TEXT)
    if not text and not content.get("blocks"):
        raise SlackError("no_text")
    if "thread_ts" in content and content["thread_ts"] not in channel.messages:
        raise SlackError("thread_not_found")
    message = api.workspace.post(channel, api.workspace.app_message(text, content))
    if _flag(arguments.get("reply_broadcast")):
        message["subtype"] = "thread_broadcast"
    return {"channel": channel.id, "ts": message["ts"], "message": message}


@_method("chat.update", "chat:write")
def _update(api: WebApi, arguments: Json) -> Json:
    channel, message = api.own_message(arguments, "cant_update_message")
    if channel.archived:
        raise SlackError("is_archived")
    text, content = api.content(arguments, most=blocks.MAX_UPDATE_TEXT)
    if not text and "blocks" not in content and "metadata" not in content:
        raise SlackError("no_text")
    if text:
        message["text"] = text
    if "blocks" in content:  # Slack leaves the blocks as they are unless new ones are given
        message["blocks"] = blocks.with_ids(content["blocks"])
    if "metadata" in content:
        message["metadata"] = content["metadata"]
    message["edited"] = {"user": BOT_USER, "ts": api.workspace.timestamp()}
    return {"channel": channel.id, "ts": message["ts"], "text": message["text"], "message": message}


@_method("chat.delete", "chat:write")
def _delete(api: WebApi, arguments: Json) -> Json:
    channel, message = api.own_message(arguments, "cant_delete_message")
    del channel.messages[message["ts"]]
    return {"channel": channel.id, "ts": message["ts"]}


@_method("chat.getPermalink")
def _permalink(api: WebApi, arguments: Json) -> Json:
    channel = api.known(arguments)
    timestamp = str(arguments.get("message_ts") or "")
    if timestamp not in channel.messages:
        raise SlackError("message_not_found")
    place = f"archives/{channel.id}/p{timestamp.replace('.', '')}"
    return {"channel": channel.id, "permalink": f"https://sandbox.slack.com/{place}"}


@_method("chat.postEphemeral", "chat:write")
def _post_ephemeral(api: WebApi, arguments: Json) -> Json:
    channel = api.known(arguments)
    if channel.archived:
        raise SlackError("is_archived")
    if BOT_USER not in channel.members:
        raise SlackError("not_in_channel")
    user = str(arguments.get("user") or "")
    if user not in channel.members:
        raise SlackError("user_not_in_channel")
    text, content = api.content(arguments, most=blocks.MAX_MESSAGE_TEXT)
    if not text and not content.get("blocks"):
        raise SlackError("no_text")
    return {"message_ts": api.workspace.whisper(user, channel.id, text, content)["ts"]}


@_method("conversations.info", *_READ)
def _info(api: WebApi, arguments: Json) -> Json:
    channel = api.known(arguments)
    api.need(f"{channel.kind}:read")
    return {"channel": channel.as_json()}


@_method("conversations.list", *_READ)
def _list(api: WebApi, arguments: Json) -> Json:
    kinds = {"channels": "public_channel", "groups": "private_channel", "im": "im"}
    wanted = str(arguments.get("types") or "public_channel").replace(" ", "").split(",")
    for kind, name in kinds.items():
        if name in wanted:
            api.need(f"{kind}:read")
    found = [
        c.as_json()
        for c in api.workspace.channels.values()
        if kinds[c.kind] in wanted and (not c.private or BOT_USER in c.members)
    ]
    return {"channels": found, "response_metadata": {"next_cursor": ""}}


@_method("conversations.members", *_READ)
def _members(api: WebApi, arguments: Json) -> Json:
    channel = api.known(arguments)
    api.need(f"{channel.kind}:read")
    return {"members": sorted(channel.members), "response_metadata": {"next_cursor": ""}}


@_method("conversations.join", "channels:join")
def _join(api: WebApi, arguments: Json) -> Json:
    channel = api.known(arguments)
    if channel.archived:
        raise SlackError("is_archived")
    if channel.private or channel.direct:
        raise SlackError("method_not_supported_for_channel_type")
    channel.members.add(BOT_USER)
    return {"channel": channel.as_json()}


@_method("conversations.open", "im:write")
def _open(api: WebApi, arguments: Json) -> Json:
    user = str(arguments.get("users") or "")
    if user not in api.workspace.members:
        raise SlackError("user_not_found")
    return {"channel": {"id": api.workspace.direct(user).id}}


def _page(api: WebApi, arguments: Json, messages: list[Json], limit: int) -> Json:
    """One page of messages in the order given; the cursor is the timestamp at which the next page begins."""
    try:
        limit = min(int(arguments.get("limit") or limit), 1000)
    except ValueError:
        raise SlackError("invalid_limit") from None
    oldest, latest = str(arguments.get("oldest") or "0"), str(arguments.get("latest") or "9999999999")
    inclusive = _flag(arguments.get("inclusive"))
    kept = [
        m
        for m in messages
        if float(oldest) < float(m["ts"]) < float(latest) or (inclusive and m["ts"] in (oldest, latest))
    ]
    cursor = str(arguments.get("cursor") or "")
    if cursor:
        start = next((i for i, m in enumerate(kept) if m["ts"] == cursor.removeprefix("next_ts:")), None)
        if start is None:
            raise SlackError("invalid_cursor")
        kept = kept[start:]
    page, rest = kept[:limit], kept[limit:]
    if not _flag(arguments.get("include_all_metadata")):
        page = [{k: v for k, v in m.items() if k != "metadata"} for m in page]
    answer: Json = {"messages": page, "has_more": bool(rest)}
    if rest:
        answer["response_metadata"] = {"next_cursor": f"next_ts:{rest[0]['ts']}"}
    return answer


@_method("conversations.history", *_HISTORY)
def _history(api: WebApi, arguments: Json) -> Json:
    channel = api.readable(arguments)
    shown = [
        m
        for m in reversed(channel.messages.values())
        if m.get("thread_ts", m["ts"]) == m["ts"] or m.get("subtype") == "thread_broadcast"
    ]
    return _page(api, arguments, shown, 100)


@_method("conversations.replies", *_HISTORY)
def _replies(api: WebApi, arguments: Json) -> Json:
    channel = api.readable(arguments)
    parent = channel.messages.get(str(arguments.get("ts")))
    if parent is None:
        raise SlackError("thread_not_found")
    replies = [m for m in channel.messages.values() if m.get("thread_ts") == parent["ts"] and m is not parent]
    answer = _page(api, arguments, replies, 1000)
    if not arguments.get("cursor"):  # the thread's first message leads, whatever the bounds
        first = parent if _flag(arguments.get("include_all_metadata")) else dict(parent)
        if first is not parent:
            first.pop("metadata", None)
        answer["messages"].insert(0, first)
    return answer


@_method("users.info", "users:read")
def _user(api: WebApi, arguments: Json) -> Json:
    member = api.workspace.members.get(str(arguments.get("user")))
    if member is None:
        raise SlackError("user_not_found")
    return {"user": member.as_json(with_email=api.has("users:read.email"))}


@_method("users.conversations", "channels:read", "groups:read", "im:read", "mpim:read")
def _user_channels(api: WebApi, arguments: Json) -> Json:
    """A person's channels; of those that are not public, the ones that the app is in too."""
    wanted = str(arguments.get("types") or "public_channel").replace(" ", "").split(",")
    needed = {"public_channel": "channels:read", "private_channel": "groups:read", "im": "im:read", "mpim": "mpim:read"}
    if not set(wanted) <= set(needed):
        raise SlackError("invalid_types")
    for kind in wanted:
        api.need(needed[kind])
    user = str(arguments.get("user") or BOT_USER)
    if user not in api.workspace.members or api.workspace.members[user].deleted:
        raise SlackError("user_not_found")
    try:
        limit = int(arguments.get("limit") or 100)
    except ValueError:
        raise SlackError("invalid_limit") from None
    if not 0 < limit <= 999:
        raise SlackError("invalid_limit")
    kinds = {"channels": "public_channel", "groups": "private_channel", "im": "im"}
    found = [
        c
        for c in api.workspace.channels.values()
        if user in c.members and kinds[c.kind] in wanted and (c.kind == "channels" or BOT_USER in c.members)
    ]
    cursor = str(arguments.get("cursor") or "")
    if cursor:
        start = next((i for i, c in enumerate(found) if f"next:{c.id}" == cursor), None)
        if start is None:
            raise SlackError("invalid_cursor")
        found = found[start:]
    page, rest = found[:limit], found[limit:]
    return {
        "channels": [c.as_json() for c in page],
        "response_metadata": {"next_cursor": f"next:{rest[0].id}" if rest else ""},
    }


@_method("views.open")
def _views_open(api: WebApi, arguments: Json) -> Json:
    view = api.view(arguments)
    trigger = api.trigger(arguments)
    api.unique(view)
    opened = OpenView(api.workspace.new_view(view), trigger.channel)
    api.workspace.open_views[trigger.user] = [opened]
    return {"view": opened.view}


@_method("views.push")
def _views_push(api: WebApi, arguments: Json) -> Json:
    view = api.view(arguments)
    trigger = api.trigger(arguments)
    api.unique(view)
    return {"view": push(api.workspace, trigger.user, view).view}


def push(workspace: Workspace, user: str, view: Json) -> OpenView:
    """Push a modal onto the person's stack. Raises push_limit_reached."""
    stack = workspace.open_views.get(user, [])
    if not stack:
        raise SlackError("not_found")
    if len(stack) >= VIEW_STACK:
        raise SlackError("push_limit_reached")
    below = stack[-1]
    made = workspace.new_view(view, root=below.view["root_view_id"], previous=below.view["id"])
    stack.append(OpenView(made, below.channel))
    return stack[-1]


@_method("views.update")
def _views_update(api: WebApi, arguments: Json) -> Json:
    if arguments.get("view_id") and arguments.get("external_id"):
        raise _invalid(["[ERROR] Cannot provide both `view_id` and `external_id`"])
    view = api.view(arguments)
    found = api.workspace.find_view(str(arguments.get("view_id") or arguments.get("external_id") or ""))
    if found is None:
        raise SlackError("not_found")
    opened = found[1]
    if arguments.get("hash") and arguments["hash"] != opened.view["hash"]:
        raise SlackError("hash_conflict")
    api.unique(view, but=opened.view["id"])
    api.workspace.replace_view(opened, view)
    return {"view": opened.view}


@_method("views.publish")
def _views_publish(api: WebApi, arguments: Json) -> Json:
    view = api.view(arguments, "home")
    if not api.home_enabled:
        raise SlackError("not_enabled")
    user = str(arguments.get("user_id") or "")
    if user not in api.workspace.members:
        raise _invalid(["[ERROR] invalid user_id [json-pointer:/user_id]"])
    before = api.workspace.homes.get(user)
    if arguments.get("hash") and (before is None or arguments["hash"] != before["hash"]):
        raise SlackError("hash_conflict")
    home = api.workspace.new_view(view)
    if before is not None:
        home |= {"id": before["id"], "root_view_id": before["id"]}
    api.workspace.homes[user] = home
    return {"view": home}


@_method("files.getUploadURLExternal", "files:write")
def _upload_url(api: WebApi, arguments: Json) -> Json:
    name = str(arguments.get("filename") or "")
    if not name:
        raise _invalid(["[ERROR] missing required field: filename"])
    try:
        length = int(arguments.get("length") or 0)
    except ValueError:
        length = 0
    if length <= 0:
        raise _invalid(["[ERROR] missing required field: length"])
    file = File("F" + secrets.token_hex(5).upper(), name, length)
    api.workspace.files[file.id] = file
    return {"upload_url": f"{api.base}upload/v1/{file.id}", "file_id": file.id}


@_method("files.completeUploadExternal", "files:write")
def _complete_upload(api: WebApi, arguments: Json) -> Json:
    wanted = _decoded(arguments.get("files") or [], "invalid_arguments")
    if not wanted:
        raise _invalid(["[ERROR] missing required field: files"])
    files = []
    for entry in wanted:
        file = api.workspace.files.get(entry.get("id", ""))
        if file is None or file.content is None or file.shared:
            raise SlackError("file_not_found")
        files.append((file, str(entry.get("title") or "")))
    names = str(arguments.get("channel_id") or arguments.get("channels") or "")
    channels = [api.known({"channel": name}) for name in names.split(",") if name]
    thread = str(arguments.get("thread_ts") or "")
    for channel in channels:
        if channel.archived:
            raise SlackError("is_archived")
        if BOT_USER not in channel.members:
            raise SlackError("not_in_channel")
        if thread and thread not in channel.messages:
            raise SlackError("thread_not_found")
    for file, title in files:
        file.title = title
    for channel in channels:
        message = {
            "text": str(arguments.get("initial_comment") or ""),
            "user": BOT_USER,
            "bot_id": BOT,
            "app_id": APP,
            "upload": False,
            "display_as_bot": False,
            "files": [file.as_json(api.base) for file, _ in files],
        }
        posted = api.workspace.post(channel, message | ({"thread_ts": thread} if thread else {}))
        for file, _ in files:
            file.shared.append((channel.id, posted["ts"]))
    return {"files": [_file_json(api, file) for file, _ in files]}


@_method("files.info", "files:read")
def _file_info(api: WebApi, arguments: Json) -> Json:
    file = api.workspace.files.get(str(arguments.get("file")))
    if file is None or file.content is None:
        raise SlackError("file_not_found")
    return {"file": _file_json(api, file)}


def _file_json(api: WebApi, file: File) -> Json:
    shares: Json = {}
    for channel, ts in file.shared:
        kind = "private" if api.workspace.channels[channel].private else "public"
        shares.setdefault(kind, {}).setdefault(channel, []).append({"ts": ts})
    return file.as_json(api.base) | {"channels": [c for c, _ in file.shared], "shares": shares}
