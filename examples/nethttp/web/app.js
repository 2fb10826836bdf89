// The page works without this file. With it, forms are sent and the list is kept up to date without a reload: both fetch the
// same HTML that the server would show, and put what has changed into the page.
"use strict";

// patch makes old look like fresh and leaves alone what is the same, so that nobody loses their place. The children of an element
// with data-keyed are told apart by their ids.
function patch(old, fresh) {
	if (old.isEqualNode(fresh)) return;
	if (!("keyed" in old.dataset && "keyed" in fresh.dataset)) {
		old.replaceWith(fresh);
		return;
	}
	const known = new Map([...old.children].map((el) => [el.id, el]));
	let at = old.firstElementChild;
	for (const child of [...fresh.children]) {
		const mine = known.get(child.id);
		known.delete(child.id);
		if (mine === at && at) at = at.nextElementSibling;
		else old.insertBefore(mine ?? child, at);
		if (mine) patch(mine, child);
	}
	for (const gone of known.values()) gone.remove();
}

// show puts a page or fragment of the server's in place. Who had the focus keeps it; if the button is gone, its row has it, or
// the list.
function show(html) {
	const fresh = new DOMParser().parseFromString(html, "text/html");
	const focus = document.activeElement;
	const row = focus?.closest("li");
	for (const id of ["members", "demo"]) {
		const old = document.getElementById(id), now = fresh.getElementById(id);
		if (old && now) patch(old, now);
	}
	if (focus && focus !== document.body && !focus.isConnected) {
		const heir = document.getElementById(focus.id) ?? (row && document.getElementById(row.id)) ?? document.getElementById("list-head");
		(heir.matches("li") && heir.querySelector("button") || heir).focus({ preventScroll: true });
	}
	return fresh;
}

let tag = "", busy = 0, changes = 0, queue = Promise.resolve();

// One form after the other; the same one not twice.
addEventListener("submit", (event) => {
	event.preventDefault();
	const form = event.target, button = event.submitter;
	if (form.hasAttribute("aria-busy")) return;
	const path = button?.getAttribute("formaction") ?? form.action;
	const body = new URLSearchParams(new FormData(form, button));
	form.setAttribute("aria-busy", "true");
	const text = form.querySelector("textarea"); // the answer says what stays in it: nothing is typed meanwhile that would be lost
	if (text) text.readOnly = true;
	busy++;
	queue = queue.then(() => send(form, path, body)).finally(() => {
		form.removeAttribute("aria-busy");
		if (text) text.readOnly = false;
		busy--;
	});
});

async function send(form, path, body) {
	const outcome = document.getElementById("outcome");
	changes++;
	try {
		const answer = await fetch(path, { method: "POST", body });
		const html = await answer.text();
		if (!answer.headers.get("Content-Type")?.startsWith("text/html")) {
			report(outcome, html);
			return;
		}
		const fresh = show(html);
		outcome.replaceChildren(...fresh.getElementById("outcome").childNodes);
		if (form.id === "invite") {
			for (const id of ["emails", "role"]) document.getElementById(id).value = fresh.getElementById(id).value;
		}
	} catch {
		report(outcome, "The server does not answer. Try again.");
	}
}

function report(outcome, text) {
	const box = document.createElement("div");
	box.className = "outcome bad";
	box.textContent = text;
	outcome.replaceChildren(box);
}

// Asking again and again works with any number of processes behind the address, and costs them one page of the list.
async function look() {
	if (document.visibilityState !== "visible" || busy) return;
	const before = changes;
	const answer = await fetch(document.body.dataset.live, { headers: tag ? { "If-None-Match": tag } : {} });
	if (answer.status !== 200 || before !== changes) return; // nothing new, or older than what a form has shown
	const html = await answer.text();
	if (before !== changes) return;
	tag = answer.headers.get("ETag") ?? "";
	show(html);
}

(async () => {
	for (;;) {
		await new Promise((wake) => setTimeout(wake, 2000));
		try {
			await look();
		} catch {
			// The server is away; the next round asks again.
		}
	}
})();
