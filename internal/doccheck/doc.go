// Package doccheck tests the documentation: snippets compile, the SQL of the pages runs and does what
// the page says, links lead somewhere, and lists are complete. It has tests only.
package doccheck
