package clerkapi

import "time"

// SetPause changes the pause before a retry, so that tests do not wait.
func (c *Client) SetPause(d time.Duration) { c.pause = d }
