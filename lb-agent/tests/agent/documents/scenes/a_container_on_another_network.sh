ip addr add 10.0.0.1/32 dev lo
docker network create --subnet 172.18.0.0/16 front
docker network create --subnet 172.20.0.0/16 back
docker run -d --name web --network front --ip 172.18.0.2 nginx
docker run -d --name shop --network back --ip 172.20.0.2 -p 10.0.0.1:8080:80 -e SERVICE_NAME=www_hello -e SERVICE_ID=a nginx
lb-agent run
