// Package peers has only tests. They compare the library with implementations that were
// not written here. Clerk's JavaScript SDK reads the responses of the fake Clerk
// (clerkinvitetest). The libraries of Svix for Go and JavaScript, of Standard Webhooks
// and of Clerk sign and verify webhooks.
//
// The JavaScript libraries are in package-lock.json, in exact versions, and
// scripts/ensure-peers.sh installs them beside it. Without them or without node their
// tests are skipped, or fail if CLERKINVITE_REQUIRE names node. The programs in testdata
// run in node, answer lines of JSON, and connect to this machine only.
package peers
