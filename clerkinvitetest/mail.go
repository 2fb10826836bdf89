package clerkinvitetest

import (
	"slices"
	"time"
)

// Mail is an email that Clerk sent for an invitation.
type Mail struct {
	InvitationID string
	To           string
	URL          string // the invitation's link
	Template     string // template_slug, or "organization_invitation"
	At           time.Time
}

// send sends the invitation's email.
func (c *Clerk) send(r *invitationRecord, p createParams) {
	template := p.template
	if p.organization != "" {
		template = "organization_invitation"
	}
	c.mail = append(c.mail, Mail{InvitationID: r.id, To: r.email, URL: r.url, Template: template, At: r.createdAt})
	c.mailTo[r.email]++
}

// Emails returns the number of emails that Clerk sent.
func (c *Clerk) Emails() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.mail)
}

// EmailsTo returns the number of emails that Clerk sent to the address.
func (c *Clerk) EmailsTo(address string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.mailTo[c.stored(address)]
}

// SentMail returns the emails that Clerk sent, oldest first.
func (c *Clerk) SentMail() []Mail {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.mail)
}
