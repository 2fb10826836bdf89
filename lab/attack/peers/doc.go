// Package peers holds tests only. They compare the library with other people's
// implementations of the same thing: the fake of Clerk (clerkinvitetest) with what
// Clerk's own JavaScript SDK makes of its answers, and signing and verifying of
// webhooks with Svix's libraries for Go and JavaScript, with Standard Webhooks' and
// with Clerk's.
//
// Those for Go come with go.mod. Those for JavaScript are in package-lock.json, in
// exact versions; scripts/ensure-peers.sh installs them beside it. Without node or
// without them their tests are skipped; they fail if CLERKINVITE_REQUIRE names node.
// The programs in testdata run in node, answer lines of JSON, and reach nothing but
// this machine.
package peers
