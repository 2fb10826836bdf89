package routers

import (
	"net/http"

	"github.com/gin-gonic/gin"

	"github.com/clerkinvite/clerkinvite"
)

// begin snippet

// ginRoutes returns the endpoints on gin. The library gets the request's context and never
// the *gin.Context, though that is a context.Context too: gin uses it again for the next
// request, and it does not end when the client goes away.
func ginRoutes(svc *clerkinvite.Service, verifier *clerkinvite.WebhookVerifier) http.Handler {
	answer := func(c *gin.Context, status int, body any, err error) {
		if err != nil {
			status, body = failure(c.Request.Context(), c.Writer.Header(), err)
		}
		c.AbortWithStatusJSON(status, body)
	}
	router := gin.New()
	router.Use(gin.Recovery())
	router.Any("/webhooks/clerk", gin.WrapH(svc.WebhookHandler(verifier))) // not behind the guard: the signature is its proof
	tenant := router.Group("/tenants/:tenant/invitations", func(c *gin.Context) {
		if !isAdmin(c.Request, c.Param("tenant")) {
			answer(c, 0, nil, errNoAdmin)
		}
	})
	tenant.POST("", func(c *gin.Context) {
		var body invitation
		if err := c.ShouldBindJSON(&body); err != nil { // BindJSON would answer by itself, in plain text
			answer(c, 0, nil, unreadable(err))
			return
		}
		member, err := svc.Invite(c.Request.Context(), body.params(c.Param("tenant")))
		answer(c, http.StatusCreated, member, err)
	})
	tenant.GET("", func(c *gin.Context) {
		list, err := svc.List(c.Request.Context(), listParams(c.Param("tenant"), c.Request))
		if err != nil {
			answer(c, 0, nil, err)
			return
		}
		answer(c, http.StatusOK, page{list.Members, list.Next}, nil)
	})
	return http.MaxBytesHandler(router, maxBody)
}

// end snippet
