// Package doccheck tests the documentation: snippets compile, the SQL of the pages runs and does what
// the page says, commands exist, links lead somewhere, and lists are complete.
package doccheck
