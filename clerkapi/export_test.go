package clerkapi

import "time"

// SetPause changes the pause before a look-up is repeated, so that tests need not wait.
func (c *Client) SetPause(d time.Duration) { c.pause = d }
