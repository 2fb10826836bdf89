// The page works without this file. With it, forms are sent and the list is updated without a reload: both fetch the HTML that the
// server would show, and change the differences in the page.
"use strict";

// patch turns current into next and keeps equal elements, so that focus and selection stay. Children of an element with data-keyed are
// matched by their IDs. While the pointer is in the list, no row moves or goes, because the next click would be for another person.
function patch(current, next) {
	if (current.isEqualNode(next)) return;
	if (current.matches("#list:hover")) {
		for (const row of [...current.children]) {
			const update = next.children.namedItem(row.id);
			if (update) patch(row, update);
			else for (const button of row.querySelectorAll("button")) button.disabled = true;
		}
		tag = ""; // a later poll changes the rest
		return;
	}
	if (!("keyed" in current.dataset && "keyed" in next.dataset)) {
		current.replaceWith(next);
		return;
	}
	const known = new Map([...current.children].map((el) => [el.id, el]));
	let at = current.firstElementChild;
	for (const child of [...next.children]) {
		const match = known.get(child.id);
		known.delete(child.id);
		if (match === at && at) at = at.nextElementSibling;
		else current.insertBefore(match ?? child, at);
		if (match) patch(match, child);
	}
	for (const removed of known.values()) removed.remove();
}

// show updates the page from the server's HTML. The focus stays; if its button is gone, it moves to the row or to the list.
function show(html) {
	const next = new DOMParser().parseFromString(html, "text/html");
	const focus = document.activeElement;
	const row = focus?.closest("li");
	for (const id of ["members", "demo"]) {
		const current = document.getElementById(id), update = next.getElementById(id);
		if (current && update) patch(current, update);
	}
	if (focus && focus !== document.body && !focus.isConnected) {
		const target = document.getElementById(focus.id) ?? (row && document.getElementById(row.id)) ?? document.getElementById("list-head");
		(target.matches("li") && target.querySelector("button") || target).focus({ preventScroll: true });
	}
	return next;
}

let tag = "", busy = 0, changes = 0, queue = Promise.resolve();

// Forms are sent one after the other, and a form is not sent twice.
addEventListener("submit", (event) => {
	const form = event.target, button = event.submitter;
	if ((button?.formMethod || form.method) !== "post") return; // the search, or a dialog that closes
	event.preventDefault();
	if (form.hasAttribute("aria-busy")) return;
	const path = button?.getAttribute("formaction") ?? form.action;
	const body = new URLSearchParams(new FormData(form, button));
	form.setAttribute("aria-busy", "true");
	const text = form.querySelector("textarea"); // the response replaces its text, so nothing may be typed in the meantime
	if (text) text.readOnly = true;
	busy++;
	queue = queue.then(() => send(form, path, body)).finally(() => {
		form.removeAttribute("aria-busy");
		if (text) text.readOnly = false;
		busy--;
	});
});

const silence = `<div id="outcome"><dialog open class="outcome bad"><p>The server does not respond. Try again.</p>
<form method="dialog"><button>Close</button></form></dialog></div>`;

async function send(form, path, body) {
	changes++;
	let html = await fetch(path, { method: "POST", body }).then((response) => response.text()).catch(() => "");
	if (!html.includes('id="outcome"')) html = silence;
	const outcome = document.getElementById("outcome");
	outcome.querySelector("dialog")?.close(); // a question returns the focus
	const page = show(html);
	outcome.replaceChildren(...page.getElementById("outcome").childNodes);
	if (form.id === "invite" && page.getElementById("invite")) {
		for (const id of ["emails", "role"]) document.getElementById(id).value = page.getElementById(id).value;
	}
	const question = document.getElementById("question");
	if (question) {
		question.open = false;
		question.showModal();
	}
}

// Polling works with any number of server processes, and costs one page of the list and its counts.
async function poll() {
	if (document.visibilityState !== "visible" || busy) return;
	const before = changes;
	const response = await fetch(document.body.dataset.live, { headers: tag ? { "If-None-Match": tag } : {} });
	if (response.status !== 200 || before !== changes) return; // unchanged, or older than a form's response
	const html = await response.text();
	if (before !== changes) return;
	tag = response.headers.get("ETag") ?? "";
	show(html);
}

(async () => {
	for (;;) {
		await new Promise((wake) => setTimeout(wake, 2000));
		try {
			await poll();
		} catch {
			// The server is not reachable; try again in the next round.
		}
	}
})();
